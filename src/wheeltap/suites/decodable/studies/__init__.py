"""Studies of the suite ``decodable``."""
