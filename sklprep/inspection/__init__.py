"""Descriptions and audits of data: their content, and what would spoil a published score."""
