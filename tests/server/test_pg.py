def test_a(store): pass
def test_b(store): pass
def test_c(store): pass
def test_d(store): pass
