"""Placing an order: the rows, and the workflow that fulfils them, in one commit."""

from django.db import transaction

from .models import Order, OrderLine, Product
from .workflows import fulfil_order, orders


def place_order(email: str, postcode: str, card: str, basket: dict[Product, int]) -> Order:
    """Create the order and enqueue its workflow.

    Either both are there or neither: no order without a workflow when the process
    dies here, no workflow for an order that was rolled back.
    """
    with transaction.atomic():
        order = Order.objects.create(email=email, postcode=postcode, card=card)
        OrderLine.objects.bulk_create(
            OrderLine(order=order, product=product, quantity=quantity, price=product.price)
            for product, quantity in basket.items()
        )
        orders.enqueue(fulfil_order.using(workflow_id=order.workflow_id), order.pk)
    return order
