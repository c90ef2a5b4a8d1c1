"""Decodable factors: what can be read off a layer, what is used of it, and nets that hold the same factors differently.

The audit ``decodable`` (WT203) asks which factors a linear probe reads off a layer although the outputs do not depend
on them; the study ``decodable-shift`` whether nets are fragile whose factors can be read off but are not kept apart.

In reading order: ``specs`` (what is read), ``engine`` (vectors of layers, their subspaces, ablation), ``readings``,
``audits``; ``nets`` (examples with known factors), ``recipes`` (nets that answer them), ``studies``.
"""
