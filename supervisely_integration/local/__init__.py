"""An embedded Supervisely instance for one machine: no account, no network."""
