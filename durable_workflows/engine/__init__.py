"""Runs workflows. No SQL, no ORM, no Django: the store below knows those."""
