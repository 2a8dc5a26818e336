from .cost import (
    Cost as Cost,
    complexity as complexity,
    count_macs as count_macs,
    count_parameters as count_parameters,
)
from .factory import create_model as create_model, without_memory as without_memory
from .families import (
    foreign_names as foreign_names,
    is_se as is_se,
    model_names as model_names,
    plain_twin as plain_twin,
    se_twin as se_twin,
)
from .network import Network as Network
