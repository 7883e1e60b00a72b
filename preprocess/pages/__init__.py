"""Scanned pages: how they lie and bend, and what straightens them. See README.md here."""
