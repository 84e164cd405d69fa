"""What the demo site stores."""
import uuid

from django.db import models
from django.db.models.signals import post_delete
from django.dispatch import receiver


def stored_name(upload, filename):
    """Where an upload is kept. Nothing of the name that the visitor gave gets near the file system."""
    return f"uploads/{uuid.uuid4().hex}"


class Note(models.Model):
    """A line or two that somebody left."""

    author = models.CharField(max_length=40)
    text = models.TextField(max_length=2000)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-id"]

    def __str__(self):
        return f"{self.author}: {self.text[:40]}"


class Upload(models.Model):
    """A file that somebody sent; `name` is only ever shown."""

    name = models.CharField(max_length=255)
    file = models.FileField(upload_to=stored_name)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-id"]

    def __str__(self):
        return self.name


@receiver(post_delete, sender=Upload)
def forget_file(sender, instance, **kwargs):
    """The file goes with its row; a signal, because the admin deletes many rows without Upload.delete()."""
    instance.file.delete(save=False)
