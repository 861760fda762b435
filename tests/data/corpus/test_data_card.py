from limbeck.data.corpus.data_card import NUM_BINS, measure


def test_histogram_counts_everything():
    part = measure([*range(1, 100), 5000])
    assert sum(part["bins"]) == part["count"] == 100 and len(part["bins"]) == NUM_BINS
    assert (part["least"], part["most"]) == (1, 5000)
    assert measure([])["count"] == 0
