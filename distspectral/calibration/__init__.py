"""From trained functions to Ritz functions: sums over edges, residuals, and the rotation that they give."""
