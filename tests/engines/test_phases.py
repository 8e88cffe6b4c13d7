from sam_deploy.engines.monitor import Phases


def test_a_phase_is_part_of_a_step_of_its_parent():
    phases = Phases()
    phases.start("build", None, 4)
    phases.step("build", 1)
    assert phases.part == 0.25
    phases.start("optimize", "build", 2)
    phases.start("time", "optimize", 10)
    phases.step("time", 5)
    assert phases.part == 0.25 + 0.25 * 0.5 * 0.5
    phases.finish("time")
    phases.finish("optimize")
    assert phases.part == 0.5
    phases.step("build", 2)
    assert phases.part == 0.5
    phases.finish("build")
    assert phases.part == 1


def test_it_never_falls_nor_goes_beyond_the_whole():
    phases = Phases()
    phases.start("build", None, 1)
    for name in ("a", "b", "a"):  # more phases than the parent has steps; names come again
        phases.start(name, "build", 1)
        phases.step(name, 1)
        assert phases.part == 1
        phases.finish(name)
    phases.finish("build")
    phases.start("again", None, 2)
    phases.step("again", 1)
    phases.step("unknown", 1)
    phases.finish("unknown")
    assert phases.part == 1
