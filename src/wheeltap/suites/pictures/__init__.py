"""Pictures: is a net that draws a picture wired like nets trained to draw the same picture?

The study ``pictures`` compares one net (a Picbreeder genome, or a picture whose factors are known) with nets of one
layout that gradient descent trained to draw it. Every number is a reading of a layered CPPN.

In reading order: ``nets`` (genomes, their dense nets, pictures with known factors), ``specs`` (what is read),
``stats``, ``engine`` (responses to changes of weights, all numbers of one net), ``readings``, ``recipes`` (training by
hand-derived gradients), ``sources`` (files and names), ``studies``, ``sections`` (the explorer), ``cli``.
"""
