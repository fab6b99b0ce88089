"""The shop window: products, placing an order, and watching it."""

from django.core.paginator import Paginator
from django.db.models import Q
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from durable_workflows import retrieve_workflow
from durable_workflows.errors import NonExistentWorkflow

from .checkout import place_order
from .forms import OrderForm
from .models import Order, Product

PRODUCTS_A_PAGE = 25


@require_safe
def product_list(request):
    query = request.GET.get("q", "").strip()[:100]
    products = Product.objects.select_related("stock")
    if query:
        products = products.filter(Q(name__icontains=query) | Q(sku__istartswith=query))
    page = Paginator(products, PRODUCTS_A_PAGE).get_page(request.GET.get("page"))
    return render(request, "orders/products.html", {"page": page, "query": query})


@require_http_methods(["GET", "HEAD", "POST"])
def product(request, sku):
    """One product. A POST orders it; the workflow starts when this commits."""
    wanted = get_object_or_404(Product.objects.select_related("stock"), sku=sku)
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        quantity = form.cleaned_data.pop("quantity")
        return redirect(place_order(**form.cleaned_data, basket={wanted: quantity}))
    return render(request, "orders/product.html", {"product": wanted, "form": form})


@require_safe
def order(request, reference):
    placed = get_object_or_404(
        Order.objects.select_related("payment", "shipment").prefetch_related("lines__product"),
        reference=reference,
    )
    try:
        workflow = retrieve_workflow(placed.workflow_id).get_status()  # reads, never waits
    except NonExistentWorkflow:
        workflow = None  # old workflows may be deleted, the order stays
    return render(request, "orders/order.html", {"order": placed, "workflow": workflow})
