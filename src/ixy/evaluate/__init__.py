"""`ixy evaluate`: chapter 6 of the thesis, repeated on the machine at hand, as a report.

A section of the report is a file of `sections/`, which measures something and says what came out, in the parts of
`ixy.reporting`. `run.py` lets the sections have their turns, and has the report written.
"""
