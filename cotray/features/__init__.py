"""Features of cells: GMod (transformer), SMod (CNN), the backbone they form, and GraFR."""
