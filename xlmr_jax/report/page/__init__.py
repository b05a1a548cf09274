"""The HTML that all pages share: the frame, the style, the script, tables and charts."""
