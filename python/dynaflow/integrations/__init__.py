"""DynaFlow in other systems, by their own doors."""
