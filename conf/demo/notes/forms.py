"""The site's forms."""
import hashlib

from django import forms

from .models import Note, Upload

# Below the server's own limit (64 MiB a body), so that the visitor sees this form's message and not a bare 413.
UPLOAD_LIMIT = 50 * 1024 * 1024


class NoteForm(forms.ModelForm):
    """A new note."""

    class Meta:
        model = Note
        fields = ["author", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 3})}


class UploadForm(forms.Form):
    """A file to keep."""

    file = forms.FileField()

    def clean_file(self):
        """Refuse what is too large; Django has already reduced the name to its last part."""
        file = self.cleaned_data["file"]
        if file.size > UPLOAD_LIMIT:
            raise forms.ValidationError(f"At most {UPLOAD_LIMIT // 1024 // 1024} MiB, please.")
        return file

    def save(self):
        """Store the file, its size and its hash."""
        file = self.cleaned_data["file"]
        digest = hashlib.sha256()
        for chunk in file.chunks():
            digest.update(chunk)
        return Upload.objects.create(name=file.name, file=file, size=file.size, sha256=digest.hexdigest())
