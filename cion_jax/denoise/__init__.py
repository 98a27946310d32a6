"""Identities among tracklets: features prepared, tracklets cleaned and linked in three levels, promises checked."""
