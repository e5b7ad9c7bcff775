"""Small programs that make files of this repository: pictures, the API document, tables."""
