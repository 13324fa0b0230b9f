"""Seeded generators of examples in the authors' record format: a small bilingual world of pictures, speech and text."""
