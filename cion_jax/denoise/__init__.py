"""Who is who: identities among tracklets, found in three levels, with what is promised about them checked."""
