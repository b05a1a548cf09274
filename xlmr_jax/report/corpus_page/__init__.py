"""What corpus_report.html consists of: its numbers, pictures, tables and samples, and the page around them."""
