"""What flow matching claims, reproduced: one command a claim, from data to the tables of ``docs/claims.md``."""
