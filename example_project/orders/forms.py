from django import forms

from .models import Order

CARDS = {"card-good": "A card that can pay", "card-declined": "A card that is declined"}


class OrderForm(forms.ModelForm):
    quantity = forms.IntegerField(min_value=1, max_value=100, initial=1)
    card = forms.ChoiceField(choices=CARDS.items())

    class Meta:
        model = Order
        fields = ["email", "postcode", "card"]
        help_texts = {"postcode": "Try 99 001: no carrier goes there."}
