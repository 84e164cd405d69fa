"""Tasks for celery, whose broker is a folder of the test."""
from celery import Celery
from celery.signals import worker_ready

import site_code

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.05,
}
app.conf.worker_concurrency = 2


@worker_ready.connect
def say_ready(**_):
    """The worker takes tasks from now on."""
    site_code.notify("READY=1")


@app.task
def held(name):
    """A task that lasts until the test lets it end."""
    site_code.hold(name)
    site_code.tell(f"done {name} {site_code.answer().split()[0].decode()}")
