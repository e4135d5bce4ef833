"""How fast fm-science is beside other libraries, and beside a loop written by hand."""
