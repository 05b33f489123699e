"""Which file of which Debian package is the genome of which strain of bacteria."""

from typing import NamedTuple


class Package(NamedTuple):
    name: str
    folder: str  # of the sequences in it


class Strain(NamedTuple):
    name: str
    package: Package
    file: str  # in the package's folder
    sha256: str  # of the bases, see `sequence_files.bases_digest`
    record: str = ""  # what the wanted records' names contain


ABACAS = Package("abacas-examples", "usr/share/doc/abacas-examples")
ANY2FASTA = Package("any2fasta-examples", "usr/share/doc/any2fasta/examples")
BOWTIE = Package("bowtie-examples", "usr/share/doc/bowtie/examples/genomes")
KLEBORATE = Package("kleborate-examples", "usr/share/doc/kleborate/examples/data")
RAGOUT = Package("ragout-examples", "usr/share/doc/ragout/examples")
SEQINR = Package("r-cran-seqinr", "usr/lib/R/site-library/seqinr/sequences")
SIBELIA = Package("sibelia-examples", "usr/share/doc/sibelia/examples")
_AUREUS = "Sibelia/Staphylococcus_aureus/Staphylococcus.fasta.gz"
_PYLORI = "Sibelia/Helicobacter_pylori/Helicobacter_pylori.fasta.gz"

SPECIES: dict[str, tuple[Strain, ...]] = {
    "Escherichia_coli": (
        Strain(
            "536",
            BOWTIE,
            "NC_008253.fna.gz",
            "cd0e1297a17d3f49366b69921b48908debb43577a1c4f8690e57d6588fd1f1da",
        ),
        Strain(
            "DH1",
            RAGOUT,
            "E.Coli/references/DH1.fasta.gz",
            "a452f358068e03e7e4b6fff89a5d0428817a129a2bd746e9a27f8628bb2a66dc",
        ),
        Strain(
            "MG1655",
            RAGOUT,
            "E.Coli/references/MG1655-K12.fasta.gz",
            "42d0f71107ba714d7a5385b6793cd25053c163922b31afa0b209346f7eb125ec",
        ),
    ),
    "Klebsiella_pneumoniae": (
        Strain(
            "1084",
            KLEBORATE,
            "Klebs_Kp1084.fna.xz",
            "d08c138a41b65499ad39d0ae2f78b09c0e3ca10222418b6c6d072188761dfc33",
        ),
        Strain(
            "HS11286",
            KLEBORATE,
            "Klebs_HS11286.fna.xz",
            "9c95f87cfc682d0c5f3c8a79bf102cf9d0577c4d247da3e1d415debbeac75f16",
        ),
        Strain(
            "MGH78578",
            KLEBORATE,
            "MGH78578.fna.xz",
            "d9e5d4c9155cd224463740c5889e854a50b6394062ac51fd73dc42dde939fbb3",
        ),
        Strain(
            "NTUH-K2044",
            KLEBORATE,
            "NTUH-K2044.fna.xz",
            "c552000103fd191fc5d3e4d74ceea9b26c9453e334547607e1c6e85b84cdb629",
        ),
    ),
    "Staphylococcus_aureus": (
        Strain(
            "COL",
            RAGOUT,
            "S.Aureus/references/COL.fasta.gz",
            "ad1b1239e99b521f4e98ef66955fdf631df4fe5500f2153270691567c16836df",
        ),
        Strain(
            "JH1",
            SIBELIA,
            _AUREUS,
            "c2ac1ce510e94c9e793ba0003be68f168918eb4410840b7f1c9d284a31e32120",
            "NC_009632.1",
        ),
        Strain(
            "JKD6008",
            RAGOUT,
            "S.Aureus/references/JKD6008.fasta.gz",
            "1da131461910f77cde03b8f2969aad086ed8adf5c66c31877a4ea24c343115ce",
        ),
        Strain(
            "MSSA476",
            SIBELIA,
            _AUREUS,
            "8fb7a7941b345f550c3c950d72d839e7b7b55d0ac565793af8bdd8440cdb5886",
            "NC_002953.3",
        ),
        Strain(
            "N315",
            RAGOUT,
            "S.Aureus/references/N315.fasta.gz",
            "84767e9206f685e8652fa3aab81100bda73acc3cf41e49b571b636d7376b5a42",
        ),
        Strain(
            "NCTC8325",
            SIBELIA,
            "C-Sibelia/Staphylococcus_aureus/NCTC8325.fasta.gz",
            "3e35d65d62c39482b724507b21791e779f3c09f81fb40297b78e415cdec7505c",
        ),
        Strain(
            "RF122",
            RAGOUT,
            "S.Aureus/references/RF122.fasta.gz",
            "4d7de7a6e79607db078f13299e5249a3ad94d53b7725c2cf3bafaf27d57378c3",
        ),
        Strain(
            "TW20",
            SIBELIA,
            _AUREUS,
            "6c62caecb75b817d65fd5adc7f8073f5c2b862a9d8344604470a2581a613d27e",
            "NC_017331.1",
        ),
        Strain(
            "USA300_FPR3757",
            RAGOUT,
            "S.Aureus/references/USA300_FPR3757.fasta.gz",
            "bdfaf25cf091a5bb15a71cdce2887879cf5e4f054c85082311e579f6e5449a59",
        ),
    ),
    "Vibrio_cholerae": (
        Strain(
            "H1",
            RAGOUT,
            "V.Cholerae/references/H1.fasta.gz",
            "515cdc2c2d1d1c19f2ec1c424f596f096986febe7d205e4aa55f8dee3ac09188",
        ),
        Strain(
            "Inaba_G4222",
            RAGOUT,
            "V.Cholerae/references/O1_Inaba.fasta.gz",
            "a7f0945ce6826b9d81eee4fa92aed80ae77178f9788b72003056d149f5922330",
        ),
        Strain(
            "N16961",
            RAGOUT,
            "V.Cholerae/references/O1_biovar.fasta.gz",
            "612d6ca45fb1365330e12f8aceb018a85b1830b917b5d22fcc304e526fd963d2",
        ),
        Strain(
            "O395",
            RAGOUT,
            "V.Cholerae/references/O395.fasta.gz",
            "81a2b7bd4f8970366ed041fbc53556c555693a31d773c5e02ce0cf817b1b618f",
        ),
    ),
    "Helicobacter_pylori": (
        Strain(
            "ELS37",
            RAGOUT,
            "H.Pylori/references/ELS37.fasta.gz",
            "1cf1fe554dcd06957668b6204b95ae8a03d1f75518cf33d95138a14f2a755a21",
        ),
        Strain(
            "F32",
            SIBELIA,
            _PYLORI,
            "acaddbeac54f8a93c7b3ca1b6bc732239fe292f6f560911d993ab53ddc97b6b0",
            "NC_017366.1",
        ),
        Strain(
            "G27",
            RAGOUT,
            "H.Pylori/references/G27.fasta.gz",
            "fd147ef9ac83940687ee8906048696525b8d06957ec0c14aa02d8f9876b6d004",
        ),
        Strain(
            "Gambia94_24",
            RAGOUT,
            "H.Pylori/references/Gambia94_24.fasta.gz",
            "63b586d9ed336223332a42382e5cda3fafe075e528b279bd328f14e6a47364db",
        ),
        Strain(
            "Puno120",
            RAGOUT,
            "H.Pylori/references/Puno120.fasta.gz",
            "5615254fe150a5e6a6d2305d5ca24d3b626e86db6a07ef8472740629e0defabc",
        ),
        Strain(
            "SJM180",
            RAGOUT,
            "H.Pylori/references/SJM180.fasta.gz",
            "257f674c41fa3bef52a747b2707dfd5cea12a5c8fcfd23dfa9b6c32e245a4910",
        ),
    ),
    "Streptococcus_suis": (
        Strain(
            "SC84",
            ABACAS,
            "SS_SC84.dna.gz",
            "8e275288adae5c2e0a1e607091c1d3f93284aaa2fc954ccc4c3e88e1c3b93210",
        ),
    ),
    "Chlamydia_trachomatis": (
        Strain(
            "D_UW-3_CX",
            SEQINR,
            "ct.fasta.gz",
            "c7cf142afdf4a5068f7e39ec2171f9c85df4939fc693e925180e896fd75a97c4",
        ),
    ),
    "Leptospira_kirschneri": (
        Strain(
            "H1",
            ANY2FASTA,
            "test.gbk.gz",
            "1115fcc528c271bfa9f159334b1d461033031487dbff169267397b8746f95235",
        ),
    ),
}
