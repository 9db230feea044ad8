"""`ixy test throughput`, `latency`, `frame-loss`, `back-to-back`: the tests of RFC 2544, section 26.

A test is a file beside this one: what it tries, what it finds, and how that is shown. It is given `Trials`
(`trials.py`), which it calls with rates and bursts, and so knows nothing of devices. `search.py` looks for the highest
number at which nothing is lost. `run.py` opens the devices, has the test made with each frame size, and reports.
"""
