"""Fractured, entangled representations: how pictures, their nets and single weights hang together."""
