"""RT-DETRv2, one file per component (arXiv:2407.17140, arXiv:2304.08069)."""
