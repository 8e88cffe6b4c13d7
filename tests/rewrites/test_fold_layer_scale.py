from rule_checks import apply_up_to, block, images, smt, token_inputs


def apply(module):
    return apply_up_to("fold_layer_scale", module, only=("static_shapes",))


def test_block():
    result = apply(block(layer_scale=True))
    assert result.log.fired == [""]
    assert result.after.gamma_1 is None
    assert result.after.gamma_2 is None
    assert result.agrees(*token_inputs())


def test_one_of_two():
    module = block(layer_scale=True)
    del module.gamma_1
    module.gamma_1 = 1.0
    result = apply(module)
    assert result.log.fired == [""]
    assert result.agrees(*token_inputs())


def test_without_bias():
    module = block(layer_scale=True)
    module.attn.proj.bias = module.mlp.fc2.bias = None
    assert apply(module).agrees(*token_inputs())


def test_whole_network():
    result = apply(smt(layer_scale=True))
    assert len(result.log.fired) == 5
    assert not [name for name in result.after.state_dict() if "gamma" in name]
    assert result.agrees(images())


def test_does_not_fire_where_there_is_none():
    assert not apply(smt()).log.fired
