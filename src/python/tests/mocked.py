"""An application that is a mock; apart from the others, because this import takes longer than all else at the start of a worker."""

import unittest.mock

from kinds import plain

mock = unittest.mock.Mock(side_effect=plain)
