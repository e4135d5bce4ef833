"""Networks: the base that every velocity network shares, and blocks that the domains share.

``MessagePassing`` and ``TensorField`` live in modules of their own, since they need PyTorch Geometric and e3nn.
"""

from fm_science.declarations import renamed_names
from fm_science.networks.base import Network as Network
from fm_science.networks.base import NetworkFunction as NetworkFunction
from fm_science.networks.base import WrappedNetwork as WrappedNetwork
from fm_science.networks.base import accept_older_weights as accept_older_weights
from fm_science.networks.base import as_network as as_network
from fm_science.networks.blocks import Blocks as Blocks
from fm_science.networks.convex import ICNN as ICNN
from fm_science.networks.convex import ConvexMap as ConvexMap
from fm_science.networks.egnn import EGNN as EGNN
from fm_science.networks.embedding import Embedding as Embedding
from fm_science.networks.embedding import embedding as embedding
from fm_science.networks.fno import FNO as FNO
from fm_science.networks.guided import Guided as Guided
from fm_science.networks.guided import drop_condition as drop_condition
from fm_science.networks.maps import PlanarMap as PlanarMap
from fm_science.networks.maps import TransportMap as TransportMap
from fm_science.networks.maps import ZukoMap as ZukoMap
from fm_science.networks.operator import LatentOperator as LatentOperator
from fm_science.networks.point_field import PointField as PointField
from fm_science.networks.potential import Potential as Potential
from fm_science.networks.projected import ProjectedEndpoint as ProjectedEndpoint
from fm_science.networks.rescheduled import Rescheduled as Rescheduled
from fm_science.networks.sites import NodeEmbedding as NodeEmbedding
from fm_science.networks.steered import ScoreGuided as ScoreGuided
from fm_science.networks.tempered import TemperatureScaled as TemperatureScaled
from fm_science.networks.time import TimeEmbedding as TimeEmbedding
from fm_science.networks.transformer import SetTransformer as SetTransformer

__getattr__ = renamed_names(
    __name__,
    {
        "SiteFeatures": "NodeEmbedding",
        "Steered": "ScoreGuided",
        "Tempered": "TemperatureScaled",
        "dropped": "drop_condition",
    },
)
