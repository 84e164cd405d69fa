"""x"""
def run(options):
    return []
