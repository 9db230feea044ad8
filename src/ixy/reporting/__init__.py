"""Reports: figures as tables and curves, on paper and on the terminal.

A report is made of the parts that `parts.py` has. `report.py` puts them together and writes them: as Markdown, as one
HTML page (`page.py`), a table a CSV file, and its curves as SVG (`chart.py`) and as PNG (`picture.py`). `terminal.py`
shows a table and its curves in text, `progress.py` how far long work is.
"""
