"""`ixy evaluate`: chapter 6 of the thesis, repeated on the machine at hand, as a report.

A section of the report is a file of `sections/`, which measures something and says what came out, in the parts that
`parts.py` has. `run.py` lets the sections have their turns; `report.py` puts what they said together, and writes it as
Markdown, HTML (`page.py`, `chart.py`), and a CSV file a table.
"""
