"""A finished run told: metrics in one JSON object, one self-contained HTML page, agreement with labels."""
