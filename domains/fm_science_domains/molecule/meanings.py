"""The meaning of each metric of molecules, in one line: its unit, and which direction is better.

A name with a star stands for all names with this beginning or end.
"""

from __future__ import annotations

MEANINGS = {
    "n": "molecules that were measured",
    "valid": "share of molecules that RDKit sanitises whole, with no electron unpaired; more is better",
    "connected": "share that is valid and one fragment; more is better",
    "neutral": "share that is valid with net charge 0",
    "unique": "different SMILES among the connected samples, over their number",
    "novel": "share of the different ones that is not in the training set",
    "atom_stable": "share of atoms whose element, charge and bonds occur in the training set",
    "molecule_stable": "share of molecules of such atoms only",
    "edm_*_stable": "the same from distances alone (Hoogeboom et al. 2022); real molecules do not reach 1",
    "atoms": "atoms per molecule",
    "size_tv": "total variation distance of the distributions of size, 0 to 1; less is better",
    "element_tv": "total variation distance of the distributions of elements; less is better",
    "order_tv": "total variation distance of the distributions of bond orders; less is better",
    "charge_tv": "total variation distance of the distributions of charges; less is better",
    "length_*": "mean length of this common bond, Å",
    "bond_w1": "Wasserstein-1 distance of bond lengths within each kind, Å; less is better",
    "bond_js": "Jensen-Shannon divergence of bond lengths, bits; less is better",
    "bond_off": "error of mean bond lengths, on average over kinds, Å; less is better",
    "bond_off_worst": "error of mean bond lengths of the worst kind, Å",
    "angle_w1": "Wasserstein-1 distance of angles, degrees; less is better",
    "angle_js": "Jensen-Shannon divergence of angles, bits; less is better",
    "torsion_js": "Jensen-Shannon divergence of torsions of heavy atoms, bits; less is better",
    "mmff_strain": "energy above the nearest minimum of MMFF94, median, kcal/mol; compare it with the data",
    "mmff_strain_95": "the same, 95th percentile",
    "posebusters": "share of samples that pass every fast test of PoseBusters; more is better",
    "posebusters_valid": "the same of connected samples",
    "pb_*": "share of connected samples that pass this test of PoseBusters",
    "xtb_energy": "energy released by relaxation in GFN2-xTB, median, kcal/mol; less is better",
    "xtb_energy_mean": "the same, mean",
    "xtb_moved": "how far atoms move when relaxed in GFN2-xTB, median, Å; less is better",
    "xtb_bond_change": "how much bonds change when relaxed in GFN2-xTB, Å; less is better",
    "xtb_failed": "share of samples that GFN2-xTB could not relax",
    "qed": "drug-likeness, 0 to 1 (Bickerton et al. 2012)",
    "sa": "synthetic accessibility, 1 easy to 10 hard (Ertl & Schuffenhauer 2009)",
}
