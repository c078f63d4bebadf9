"""The page of the apps, served by themselves where the platform's scripts are out of reach."""
