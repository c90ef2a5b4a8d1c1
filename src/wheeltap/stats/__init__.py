"""What per-example numbers prove: intervals, tests and curves, with numpy and scipy alone (never torch).

``crossed`` holds the one variance model that the others share: draws and examples are both samples.
"""
