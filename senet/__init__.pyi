from .errors import UserError as UserError
from .models.factory import create_model as create_model
from .models.families import model_names as model_names
from .nn.config import SEConfig as SEConfig
from .nn.se import SqueezeExcitation as SqueezeExcitation

__version__: str
