"""Networks: the protocol that every velocity network obeys, and blocks that the domains share."""

from fm_science.networks.protocol import Network as Network
from fm_science.networks.rescheduled import Rescheduled as Rescheduled
from fm_science.networks.time import TimeEmbedding as TimeEmbedding
