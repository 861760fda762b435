"""The report: its rows, charts, HTML page and terminal tables."""
