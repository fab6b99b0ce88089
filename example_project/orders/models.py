"""The shop's tables: what is sold, what is ordered, and what became of it.

Nothing here knows of workflows but `Order.workflow_id`: the rows are ordinary
rows, written by ordinary ORM code, in views and in steps alike.
"""

import uuid
from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse


class Product(models.Model):
    sku = models.SlugField("SKU", max_length=20, unique=True)
    name = models.CharField(max_length=200)
    price = models.DecimalField(
        max_digits=9, decimal_places=2, validators=[MinValueValidator(Decimal("0.01"))]
    )

    class Meta:
        ordering = ["sku"]

    def __str__(self):
        return f"{self.name} ({self.sku})"


class Stock(models.Model):
    """How many are in the house, and how many of those are promised to an order."""

    product = models.OneToOneField(Product, models.CASCADE, primary_key=True)
    on_hand = models.PositiveIntegerField()
    reserved = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "stock"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(reserved__lte=models.F("on_hand")),
                name="stock_reserved_is_on_hand",
            )
        ]

    def __str__(self):
        return f"{self.available} of {self.product_id}"

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        RESERVED = "reserved"
        PAID = "paid"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    ENDED = [Status.SHIPPED, Status.CANCELLED]

    # Names the order to the outside: in its address, which nobody can guess, and
    # to the gateway, as the key under which it is charged at most once.
    reference = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    email = models.EmailField("e-mail")
    postcode = models.CharField(max_length=10)
    card = models.CharField(max_length=40, help_text="The gateway's token, never a card number.")
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW, db_index=True)
    problem = models.TextField(blank=True, help_text="Why the order was cancelled.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self):
        return f"Order {self.pk}"

    def get_absolute_url(self):
        return reverse("orders:order", args=[self.reference])

    @property
    def workflow_id(self) -> str:
        return f"order-{self.pk}"

    @property
    def total(self) -> Decimal:
        return sum((line.price * line.quantity for line in self.lines.all()), Decimal())

    @property
    def has_ended(self) -> bool:
        return self.status in self.ENDED


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    price = models.DecimalField(max_digits=9, decimal_places=2)  # as it was when ordered

    def __str__(self):
        return f"{self.quantity} × {self.product}"


class Payment(models.Model):
    class Status(models.TextChoices):
        TAKEN = "taken"
        REFUNDED = "refunded"

    order = models.OneToOneField(Order, models.CASCADE)
    charge_id = models.CharField(max_length=40)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status, default=Status.TAKEN)

    def __str__(self):
        return f"{self.amount} for {self.order}"


class Shipment(models.Model):
    order = models.OneToOneField(Order, models.CASCADE)
    tracking_code = models.CharField(max_length=20)
    shipped_at = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.tracking_code
