"""The guided tour: real models, real traffic, one swap, one mistake, one rollback."""
