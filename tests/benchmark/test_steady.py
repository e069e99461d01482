from edgeq.benchmark.steady import SteadyDetector, WarmUp

RULE = WarmUp(window_runs=5, window_s=0.0, windows=3, tolerance=0.03)


def feed(values, rule=RULE):
    detector = SteadyDetector(rule)
    for count, value in enumerate(values, 1):
        detector.add(value)
        if detector.steady:
            return count, detector
    return None, detector


def test_constant_latency_is_steady_after_the_windows():
    assert feed([1000] * 50)[0] == 15


def test_falling_latency_is_steady_only_once_it_stops_falling():
    falling = [int(10_000 * 0.98**i) for i in range(100)]
    count, detector = feed(falling + [1500] * 50)
    assert count > 100
    assert detector.record().discarded == count


def test_one_outlier_does_not_restart_the_warm_up():
    values = [1000] * 15
    values[7] = 1_000_000
    assert feed(values)[0] == 15


def test_unsteady_is_said():
    _, detector = feed([1000 + 100 * i for i in range(21)])
    record = detector.record()
    assert not record.steady
    assert record.discarded == 21
    assert record.last_medians_ms == (0.0017, 0.0022, 0.0027)


def test_a_window_lasts_its_time():
    rule = WarmUp(window_runs=5, window_s=0.001, windows=3, tolerance=0.03)
    assert feed([100_000] * 100, rule)[0] == 30
