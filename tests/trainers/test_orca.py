"""What of the Orca trainer does not show in the contract that all trainers share."""

from segpipe.trainers.orca import _switch_off_tuner


def test_no_fit_waits_for_a_tuner_at_its_end(monkeypatch) -> None:
    """TensorFlow's device-side dataset is there to be switched off; fails where a newer one has moved it."""
    import tensorflow as tf
    from tensorflow.python.data.ops import multi_device_iterator_ops as iterators

    seen = []
    monkeypatch.setattr(iterators, "_create_device_dataset", _recorder(iterators._create_device_dataset, seen))
    _switch_off_tuner()
    _switch_off_tuner()
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    dataset = strategy.distribute_datasets_from_function(lambda context: tf.data.Dataset.range(8).batch(2))
    tuned = iterators._create_device_dataset
    monkeypatch.setattr(iterators, "_create_device_dataset", _recorder(tuned, seen))
    assert len([batch for batch in dataset]) == 4
    inner, outer = seen
    assert inner.options().autotune.enabled is None
    assert outer.options().autotune.enabled is False


def _recorder(create, seen):
    def record(*arguments):
        dataset = create(*arguments)
        seen.append(dataset)
        return dataset

    return record
