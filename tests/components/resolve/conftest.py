from tests.exported_model import exported, exported_once, reseal

__all__ = ["exported", "exported_once", "reseal"]
