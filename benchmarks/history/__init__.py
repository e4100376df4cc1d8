"""What asv measures: the speed of convext alone, from commit to commit.

asv imports this folder by itself, without the package around it, which has the shapes. That comes
last on the path, so that the convext of the commit, which is installed, comes before the one here.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
