"""A page with a section of every kind, for those who look at it and for the tests of the page."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics import derivations
from diagnostics.report.bases_section import bases_section
from diagnostics.report.coefficients_section import coefficients_section
from diagnostics.report.compatibility_section import compatibility_section
from diagnostics.report.composition_section import composition_section
from diagnostics.report.derivations_section import derivation_section, list_section
from diagnostics.report.disentanglement_section import disentanglement_section
from diagnostics.report.document import Document, Section
from diagnostics.report.orthogonality_section import orthogonality_section
from diagnostics.report.relations_section import relations_section
from diagnostics.report.structure_section import structure_section

from . import samples
from .test_bases_section import made
from .test_coefficients_section import choice
from .test_compatibility_section import EXPERTS, FINDINGS
from .test_composition_section import audit
from .test_disentanglement_section import ERRORS
from .test_orthogonality_section import angles, use
from .test_relations_section import RELATIONS
from .test_structure_section import structure


def document(names: Sequence[str] = samples.NAMES) -> Document:
    """Every kind of section, with names of one's own where a sample takes any."""
    plain = samples.document(names)
    sections: tuple[Section, ...] = (
        compatibility_section(FINDINGS, EXPERTS),
        *plain.sections,
        coefficients_section(choice()),
        relations_section(RELATIONS),
        composition_section(audit()),
        bases_section(made((3, 2, 1))),
        structure_section({"news": structure(2), "mail": structure(2, seed=1)}),
        orthogonality_section(angles(), use()),
        disentanglement_section(ERRORS),
        list_section(derivations.all()),
        derivation_section(derivations.get("2.2")),
    )
    return Document("Every kind of section", plain.headline, sections, plain.footer)
