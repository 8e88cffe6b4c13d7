"""The real TensorRT-RTX: its parser and builder run without a GPU."""

import tensorrt_rtx as trt


class Complaints(trt.ILogger):
    """Keeps what is a warning or worse."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, message):
        harmless = (trt.ILogger.INFO, trt.ILogger.VERBOSE)
        if severity not in harmless:
            self.messages.append(f"{severity}: {message}")


# One for the process: TensorRT keeps the first logger while any builder lives, and would tell a
# second one nothing.
LOGGER = Complaints()


class Parsed:
    """A graph as the parser took it, and all that it complained about."""

    def __init__(self, data):
        self.logger = LOGGER
        LOGGER.messages = self.messages = []
        self.builder = trt.Builder(self.logger)
        # never an integer: its numbers differ from release to release
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(typed)
        parser = trt.OnnxParser(self.network, self.logger)
        self.taken = parser.parse(data)
        self.errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]

    @property
    def complaints(self):
        return self.errors + self.messages

    def build(self):
        config = self.builder.create_builder_config()
        profile = self.builder.create_optimization_profile()
        value = self.network.get_input(0)
        rest = list(value.shape)[1:]
        profile.set_shape(value.name, [1, *rest], [2, *rest], [4, *rest])
        config.add_optimization_profile(profile)
        return self.builder.build_serialized_network(self.network, config)
