"""`stfpm`: a student learns a teacher's features on normal pictures; where it fails to follow, something is new.

The teacher is a published network (ResNet18 with ImageNet weights), frozen, its batch norm folded. The student, of the
same architecture, begins at random and learns the teacher's layers 1 to 3 on normals alone. The map is the product (or
sum) over the three levels of their cosine distance, brought to the picture's size; the score is its maximum, or the
largest area above a threshold.

Generated pictures (`normscan train stfpm --generated TABLE`) join the training and weigh less than real ones. The
teacher may be fine-tuned first, on a self-supervised task (`teacher_task`), or on known abnormal pictures
(`--abnormal DIR`, the source's form, which is not one-class).

What the source does and we do not: weight a loss in a way that is right for one picture a batch only, tell generated
pictures by their file names, threshold at fixed numbers, choose the checkpoint on the test set.
"""

from normscan.families.family import Family
from normscan.families.stfpm.config import StfpmConfig
from normscan.families.stfpm.network import StfpmNetwork, start
from normscan.families.stfpm.spec import stfpm_spec
from normscan.families.stfpm.step import StudentStep
from normscan.families.stfpm.teacher import TeacherStep

FAMILY = Family(
    name="stfpm",
    paper="STFPM, student-teacher feature pyramid matching, Wang et al., BMVC 2021 (arXiv 2103.04257)",
    supervision="one_class",
    config=StfpmConfig,
    network=StfpmNetwork,
    stages=(TeacherStep, StudentStep),
    spec=stfpm_spec,
    start=start,
    abnormal={"teacher_task": "supervised"},
    tiny={
        "size": 32,
        "width": 4,
        "weights": "random",
        "teacher_task": "best",
        "teacher_epochs": 1,
        "epochs": 2,
        "batch_size": 8,
        "blur_sigma": 1.0,
    },
)
